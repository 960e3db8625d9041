"""What the owner of the shop is sent, in the owner's language: the same words for every kind of destination."""
