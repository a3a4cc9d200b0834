"""The seven migrations of VERIS, 1.3.0 to 1.3.7: one file each, tables first, then the step."""
