<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP_Event_Queue;

/**
 * Whether something should have gone long ago, because cron does not run here. Then the end of any response delivers it, where
 * a response can be ended early, or a browser is asked to have it delivered behind its visitor's back: no page, beacon or
 * checkout waits.
 */
final class Overdue
{
    private const LATE_SECONDS = 300.0;

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly Drainer $drainer)
    {
    }

    public function is_on(): bool
    {
        return $this->queue->oldest_age() > self::LATE_SECONDS && $this->drainer->has_work();
    }
}
