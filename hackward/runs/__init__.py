"""One run of the loop, from flags to its last file.

settings, stored                 flags, presets, what they resolve to; what a run directory says; no torch
inputs                           what a run is given, looked for early; no torch
parts                            what a model is beside its weights, and whether it still is
building, session, direction     what the loop holds, built; refresh, weigh, edit, log; v_hack and controls
records, screens                 rows and rollouts of a step; what a person sees
tracking                         a mirror of the rows in a tracker
exporting, export_card           the model of a run as others load it, and its card
checkpoint, rundir, leftovers    resuming; the run directory; what a run that was cut off left in it
ending                           when a run is over, also before all its steps
heldout, needs                   held-out evaluation; an estimate of the GPU memory that a run needs
"""
