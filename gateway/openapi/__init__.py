"""The contracts as an OpenAPI 3.1 document, rendered from the descriptor set that Envoy's configuration is rendered from, too."""
