"""Which columns a data set has, by task."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target", "style"),
    "unpaired": ("text", "style"),
    "classification": ("text", "label"),
    "token_classification": ("text", "label"),
    "masked_lm": ("text",),
    "generation": ("text", "style"),
}
WRITTEN = ("transfer", "unpaired", "generation")  # tasks that write texts, which a discriminator can judge
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": ("source", "target"),
    "unpaired": ("text",),
    "classification": ("text", "text_pair"),
    "masked_lm": ("text",),
    "generation": ("text",),
}
