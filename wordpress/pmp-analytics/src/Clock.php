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
}
