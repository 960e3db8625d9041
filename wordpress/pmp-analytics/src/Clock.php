<?php

declare(strict_types=1);

namespace PMP\Analytics;

/**
 * The current time. Tests move it, so that they can simulate long outages.
 */
class Clock
{
    /**
     * Seconds since 1970, UTC.
     */
    public function now(): float
    {
        return microtime(true);
    }

    /**
     * Sleeps for this many seconds. Only wp-admin does.
     */
    public function wait(float $seconds): void
    {
        usleep((int) ($seconds * 1_000_000));
    }
}
