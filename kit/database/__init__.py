"""One database per service: MySQL through aiomysql or SQLite through aiosqlite, with the same models and promises.

Every transaction reads committed rows and is serialised where it writes: MySQL runs under READ COMMITTED with row
locks, SQLite takes its write lock when a transaction begins.
"""
