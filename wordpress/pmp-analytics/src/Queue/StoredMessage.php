<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * A message that waits in the outbox, its body as JSON.
 */
final class StoredMessage
{
    /**
     * @param int $number   Its place in the outbox: older messages have smaller numbers.
     * @param int $attempts How often the mesh failed to answer for it.
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
