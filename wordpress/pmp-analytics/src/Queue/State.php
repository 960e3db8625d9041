<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * How the outbox is doing.
 */
final class State
{
    /**
     * @param int   $waiting    Messages to deliver.
     * @param int   $set_aside  Messages that the mesh refused, for a person to look at.
     * @param float $oldest_age Seconds for which the oldest of the waiting has waited; 0 without any.
     */
    public function __construct(
        public readonly int $waiting,
        public readonly int $set_aside,
        public readonly float $oldest_age,
    ) {
    }
}
