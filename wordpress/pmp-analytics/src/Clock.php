<?php

declare(strict_types=1);

namespace PMP\Analytics;

/**
 * Tells the time. Tests move it, so that a long outage takes no time.
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
     * Nothing happens for so many seconds. Only wp-admin waits.
     */
    public function wait(float $seconds): void
    {
        usleep((int) ($seconds * 1_000_000));
    }
}
