"""Colours that no colour blindness mixes: those of Okabe and Ito, in the order in which we use them."""

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#222222", "#8a8d92")
"""Blue, orange, green, purple, sky, vermilion, black, grey; the last is ours."""

INK = "#222222"
PALE = "#c9cacb"

# From negative over zero to positive; darker means larger.
SIGNED = ("#003b5c", "#0072b2", "#ffffff", "#e69f00", "#7a3d00")
