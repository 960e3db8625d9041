<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP_Event_Queue;

/**
 * Delivers what should have gone long ago, where neither cron nor the end of a response does it: in the requests that a
 * browser makes behind its visitor's back. Never in a page or a checkout.
 */
final class Overdue
{
    private const LATE_SECONDS = 300.0;

    private const SECONDS = 5.0;

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly Drainer $drainer)
    {
    }

    public function deliver(): void
    {
        if ($this->queue->oldest_age() > self::LATE_SECONDS) {
            $this->drainer->drain(self::SECONDS);
        }
    }
}
