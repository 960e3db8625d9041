<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

/**
 * Progress of the mesh on privacy requests about a person.
 */
final class Progress
{
    /**
     * @param list<array<string, mixed>> $requests The requests, as returned by the mesh.
     * @param bool                       $is_done  Whether all of them are.
     * @param string                     $problem  Why the mesh could not be called; empty on success.
     */
    public function __construct(
        public readonly array $requests,
        public readonly bool $is_done,
        public readonly bool $is_late = false,
        public readonly string $problem = '',
    ) {
    }

    /**
     * Number of erased rows.
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
     * For administrators, who can look them up in the mesh.
     */
    public function ids(): string
    {
        return implode(', ', array_column($this->requests, 'id'));
    }
}
