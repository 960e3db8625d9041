<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP_Event_Queue;

/**
 * Whether messages are overdue because WP-Cron does not run. They are then delivered after any response, if the server can end it
 * early, or by a background request of the next browser: no page, beacon or checkout waits.
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
