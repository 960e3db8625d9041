<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

/**
 * How far the mesh is with what it was asked about somebody.
 */
final class Progress
{
    /**
     * @param list<array<string, mixed>> $requests As the mesh shows them.
     * @param bool                       $is_done  All of them.
     * @param string                     $problem  Why it could not be asked; empty when it was.
     */
    public function __construct(
        public readonly array $requests,
        public readonly bool $is_done,
        public readonly bool $is_late = false,
        public readonly string $problem = '',
    ) {
    }

    /**
     * How many rows went.
     */
    public function rows(): int
    {
        $rows = 0;
        foreach ($this->requests as $request) {
            foreach (array_column($request['steps'] ?? [], 'tables') as $tables) {
                $rows += array_sum(array_map(intval(...), array_column((array) $tables, 'rows')));
            }
        }
        return $rows;
    }

    /**
     * For people, who may look them up in the mesh.
     */
    public function ids(): string
    {
        return implode(', ', array_column($this->requests, 'id'));
    }
}
