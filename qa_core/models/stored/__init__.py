"""Encodings of weight matrices in fewer bytes than float32."""
