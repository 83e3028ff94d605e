"""An agent that asks nobody: it reads its question from standard input and answers from memory."""

import sys

assert "Saint Anthony" in sys.stdin.read()
print("Saint Anthony of Egypt was a monk of the third and fourth centuries. The batch number is 00000000.")
