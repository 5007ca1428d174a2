"""Sizes that the layout of the scoring vectors and the memory report agree on."""

HOT_SHARE = 1 / 16  # of the slots have an entry in a feature that is hot
MOST_HOT = 1024
HOT_STEP, SLOT_STEP = 64, 256  # whole tiles of the product
COPIES = {7: 1, 10: 2, 23: 3}  # of a hot feature in the product, by bits of the mantissa: see `vectors.Vectors.dense`
PRODUCT_SCALE = 1 << 14  # of the product's factors: far from float16's ends
SLOTS_AT_ONCE = 1 << 26  # scores in a buffer: of one product, or kept
ROWS_AT_ONCE = 32_768  # of one call
