<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use wpdb;

/**
 * Counts requests per IP address and minute, in a small table that never grows: addresses share slots, so that one statement and
 * no cleanup are sufficient, and no address is stored.
 */
final class RateLimit
{
    private const SLOTS = 4096;

    private readonly string $name;

    public function __construct(private readonly wpdb $database)
    {
        $this->name = $database->prefix . 'pmp_rates';
    }

    public static function of_this_site(): self
    {
        global $wpdb;
        return new self($wpdb);
    }

    public function create(): void
    {
        dbDelta(
            "CREATE TABLE {$this->name} (
  slot smallint(5) unsigned NOT NULL,
  minute int(10) unsigned NOT NULL,
  requests int(10) unsigned NOT NULL,
  PRIMARY KEY  (slot)
) {$this->database->get_charset_collate()};"
        );
    }

    public function drop(): void
    {
        $this->database->query("DROP TABLE IF EXISTS {$this->name}");
    }

    /**
     * Counts a request.
     *
     * @param float $now Seconds since 1970.
     * @return int Requests of this minute so far.
     */
    public function count(string $address, float $now): int
    {
        // LAST_INSERT_ID() returns the new count without another query of the table. MySQL assigns from left to right.
        $this->database->query($this->database->prepare(
            "INSERT INTO {$this->name} (slot, minute, requests) VALUES (%d, %d, LAST_INSERT_ID(1))
            ON DUPLICATE KEY UPDATE requests = LAST_INSERT_ID(IF(minute = VALUES(minute), requests + 1, 1)), minute = VALUES(minute)",
            crc32(wp_salt('nonce') . $address) % self::SLOTS,
            intdiv((int) $now, 60),
        ));
        return (int) $this->database->get_var('SELECT LAST_INSERT_ID()');
    }
}
