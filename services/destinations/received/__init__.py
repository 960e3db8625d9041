"""Webhooks that other systems send: payment providers, WooCommerce, e-mail tools.

A sender is a module of the package `senders`: it verifies a webhook's signature and reads what the webhook states. What follows is the
same for all: it is stored, once, before it is answered, and then worked off by calls of the services that it concerns.
"""
