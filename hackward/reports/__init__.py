"""Reading runs: what they measured, what it means, how it is shown. No torch, and nothing of what makes runs.

directories, schema, runs     run directories, what their files must hold, a run in memory
kept, scored                  the rollouts that a run kept; as a monitor saw them
pools                         pools of rollouts that no run has used yet
labels, arms, nulls, onset    what runs are called; over seeds; nulls of means; curves over steps
lengths                       runs that stopped early; which tables are over the steps that all have
copies                        runs that only show another one once more
thresholds, words             what "about 0" and "most" mean; verdict words, figures as people read them
buckets, contrast             groups of rollouts; the pool that hacks against the one that does not
phase1, verification          verdicts on a probe
evidence, decision            go or not
h1_verdict                    H1, with its controls
prevention                    prevention, delay or neither, for every arm by its end
monitor_figures               what monitors knew of own rollouts, by steps and over seeds
*_tables, heldout, *_plots    how all of it is laid out and drawn
tables                        what tables share: on a terminal, as markdown, as csv
figures, plots                what pictures share
browser_rows, browser_data    rollouts one by one, with their texts; packed for the page
browser_curves, browser       the page's curves; report.html, from report.html.j2, report*.js and report.css
brief                         the on-policy runs in a few plain sentences
report                        the sections, and the files
"""
