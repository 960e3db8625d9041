<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * A message to the mesh. Its id is the idempotency key: delivered twice, it counts once.
 */
final class Message
{
    /**
     * @param array<string, mixed> $payload Body of the call.
     */
    public function __construct(
        public readonly Kind $kind,
        public readonly string $id,
        public readonly array $payload,
        public readonly string $target = '',
    ) {
    }
}
