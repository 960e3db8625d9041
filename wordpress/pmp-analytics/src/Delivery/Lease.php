<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Clock;
use wpdb;

/**
 * Limits delivery to one process at a time: a row with the process and its expiry. If a process is killed, its lease expires.
 *
 * It only saves work. If two processes deliver the same message, the mesh counts it once.
 */
final class Lease
{
    public const OPTION = 'pmp_analytics_lease';

    private const SECONDS = 60;

    private string $held = '';

    public function __construct(private readonly wpdb $database, private readonly Clock $clock)
    {
    }

    public function acquire(): bool
    {
        $mine = $this->fresh(bin2hex(random_bytes(8)));
        // Directly in the table: the options API is cached and has no compare-and-set.
        $made = $this->database->query($this->database->prepare(
            "INSERT IGNORE INTO {$this->database->options} (option_name, option_value, autoload) VALUES (%s, %s, 'no')",
            self::OPTION,
            $mine,
        ));
        if (! $made) {
            $made = $this->database->query($this->database->prepare(
                "UPDATE {$this->database->options} SET option_value = %s
                WHERE option_name = %s AND CAST(SUBSTRING_INDEX(option_value, ' ', 1) AS UNSIGNED) < %d",
                $mine,
                self::OPTION,
                (int) $this->clock->now(),
            ));
        }
        $this->held = $made ? $mine : '';
        return $this->held !== '';
    }

    /**
     * Extends the lease.
     *
     * @return bool False if another process has taken it.
     */
    public function renew(): bool
    {
        $holder = explode(' ', $this->held)[1] ?? '';
        $mine = $this->fresh($holder);
        if ($mine === $this->held) {
            return true;
        }
        $renewed = (bool) $this->database->query($this->database->prepare(
            "UPDATE {$this->database->options} SET option_value = %s WHERE option_name = %s AND option_value = %s",
            $mine,
            self::OPTION,
            $this->held,
        ));
        $this->held = $renewed ? $mine : '';
        return $renewed;
    }

    public function release(): void
    {
        $this->database->query($this->database->prepare(
            "DELETE FROM {$this->database->options} WHERE option_name = %s AND option_value = %s",
            self::OPTION,
            $this->held,
        ));
        $this->held = '';
    }

    private function fresh(string $holder): string
    {
        return (int) $this->clock->now() + self::SECONDS . ' ' . $holder;
    }
}
