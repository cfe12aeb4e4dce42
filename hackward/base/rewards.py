"""What a completion earns: two parts, which the grader pays, interventions withhold and reports show."""

FORMAT_PAY = 0.5
"""For code that compiles."""
ANSWER_PAY = 3.0
"""More, for a right answer, or where the loophole is open and its own evaluation passes."""
