"""All numerics: arrays and tensors in, arrays and tensors out; and the formats of the field."""
