"""How well searches rank, by judgements that people made: ``python -m scripts.ranking``."""
