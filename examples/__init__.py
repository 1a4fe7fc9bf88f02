"""Networks that fail as the textbooks say, and the switches that cure them.

Each script trains in under a minute on two cores with one added line, `callbacks=[GradWatch()]`.
Run `python -m examples.mlp --help`, or read README.md for what every switch was measured to do.
"""
