"""How answers are scored: decoding, official metrics, baselines, intervals, probes."""
