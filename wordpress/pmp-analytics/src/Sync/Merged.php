<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

/**
 * What a call of the mesh makes of an account.
 */
final class Merged
{
    /**
     * @param array<string, mixed> $state       What is kept from now on.
     * @param bool                 $is_reported Whether the account's profile is reported again, since the mesh has another one.
     * @param list<string>         $choices     Purposes whose choices are reported again.
     * @param list<array{field: string, site_value: string, mesh_value: string, kept: string, at: int}> $conflicts `at` is when the
     *     mesh's value was written.
     */
    public function __construct(
        public readonly array $state,
        public readonly bool $is_reported = false,
        public readonly array $choices = [],
        public readonly array $conflicts = [],
    ) {
    }
}
