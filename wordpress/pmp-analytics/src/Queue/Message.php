<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * Something to tell the mesh. Its id is the mesh's idempotency key: told twice it counts once.
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
