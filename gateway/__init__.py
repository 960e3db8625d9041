"""The gateway: an Envoy whose configuration is rendered from the mesh's descriptor set."""
