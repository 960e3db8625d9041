<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * A message in the outbox, with its body as JSON.
 */
final class StoredMessage
{
    /**
     * @param int $number   Its number in the outbox: older messages have smaller ones.
     * @param int $attempts Number of failed deliveries.
     */
    public function __construct(
        public readonly int $number,
        public readonly Kind $kind,
        public readonly string $id,
        public readonly string $target,
        public readonly string $json,
        public readonly int $attempts,
    ) {
    }
}
