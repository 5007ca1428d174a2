"""Sizes that the layout of the scoring vectors and the memory report agree on."""

HOT_SHARE = 1 / 16  # of the slots have an entry in a feature that is hot
MOST_HOT = 1024
HOT_STEP, SLOT_STEP = 64, 256  # the kernels' tiles
SLOTS_AT_ONCE = 1 << 26  # scores in the buffer
