"""From rows to samples: which columns, which turns of a conversation; one sample per question."""
