"""Who the visitor is: users, the names they are seen under, and which of them are one person."""
