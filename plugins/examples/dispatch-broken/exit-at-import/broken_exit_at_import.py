"""Ends the program that imports it, politely."""

import sys

sys.exit("this library is a program")
