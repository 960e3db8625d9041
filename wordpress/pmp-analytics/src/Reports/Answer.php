<?php

declare(strict_types=1);

namespace PMP\Analytics\Reports;

/**
 * An answer of the mesh to a question about figures, new or kept, or why there is none.
 */
final class Answer
{
    /**
     * @param int    $status      HTTP status for whoever asked.
     * @param string $text        The answer as the mesh gave it; if there is none, one line for administrators.
     * @param string $type        Content type; empty if there is no answer.
     * @param string $disposition Name under which browsers save it; empty for none.
     * @param float  $at          When the mesh gave it, in seconds since 1970.
     * @param bool   $is_last     Whether the mesh is away, and this is the last answer that it gave.
     */
    public function __construct(
        public readonly int $status,
        public readonly string $text,
        public readonly string $type = '',
        public readonly string $disposition = '',
        public readonly float $at = 0.0,
        public readonly bool $is_last = false,
    ) {
    }

    /**
     * @return array<string, mixed> Empty if it is none, or no JSON object.
     */
    public function values(): array
    {
        $values = $this->status === 200 ? json_decode($this->text, true) : null;
        return is_array($values) ? $values : [];
    }
}
