"""Networks of our own and the torch code that families share. Families decide; these modules compute.

These files import torch at their top; families import them inside their methods only.
"""
