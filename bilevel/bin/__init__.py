"""One command per module; `bilevel NAME ...` runs `bilevel.bin.NAME.main(argv)`."""
