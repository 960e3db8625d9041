"""`pmp trace`: the spans of one event, from a local mesh that keeps them or from Jaeger or Tempo, as a tree."""
