"""The colours of all figures, without matplotlib, which takes half a second to load."""

# The colours of Okabe and Ito, which can be told apart with any colour vision.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#222222", "#8a8d92")
"""Blue, orange, green, purple, sky blue, vermilion, black, and a grey of ours."""

INK = "#222222"
PALE = "#c9cacb"

# From negative through zero to positive; darker is larger.
SIGNED = ("#003b5c", "#0072b2", "#ffffff", "#e69f00", "#7a3d00")
