<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.destinations.v1.Conflict.
 */
final class ConflictPayload
{
    private const LENGTH = 255;

    /**
     * @param array<string, mixed> $facts The conflict's own fields: `id`, `field`, `site_value`, `mesh_value`, `kept` and `decided_at`.
     * @return array<string, mixed>
     */
    public static function of(array $facts): array
    {
        return Clean::only_given([
            'id' => Clean::id($facts['id'] ?? ''),
            'field' => Clean::text($facts['field'] ?? '', 50),
            'site_value' => Clean::text($facts['site_value'] ?? '', self::LENGTH),
            'mesh_value' => Clean::text($facts['mesh_value'] ?? '', self::LENGTH),
            'kept' => ($facts['kept'] ?? '') === 'wordpress' ? 'wordpress' : 'mesh',
            'decided_at' => Clean::time($facts['decided_at'] ?? null),
        ]);
    }
}
