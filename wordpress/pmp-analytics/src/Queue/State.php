<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * The state of the outbox.
 */
final class State
{
    /**
     * @param int   $waiting    Messages to deliver.
     * @param int   $set_aside  Messages that the mesh refused, for an administrator to look at.
     * @param float $oldest_age Age of the oldest waiting message in seconds; 0 without any.
     */
    public function __construct(
        public readonly int $waiting,
        public readonly int $set_aside,
        public readonly float $oldest_age,
    ) {
    }
}
