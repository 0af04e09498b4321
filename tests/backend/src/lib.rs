//! A scripted OTLP/HTTP backend.
