<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

/**
 * Decides whose value counts where the mesh and this site differ. Pure, and without WordPress: the mesh's tests run it, too.
 *
 * The profile is this site's: where the mesh has another one, it is reported again. Derived values are the mesh's. Of two choices
 * the newer one counts, and of two at the same instant the denial. All times are in microseconds since 1970.
 *
 * The state of an account:
 *   version      of the newest call that was applied; an older call has older derived values and an older profile
 *   derived      values by field
 *   consent      choices by purpose: granted, decided_at, is_own (made here, and not stated by the mesh yet), agreed_at (choices up
 *                to this time were known when the present one was made, or have been decided against), seen_at (of the newest
 *                choice that the mesh has stated)
 *   reported_at  when the profile was last reported, 0 for never
 */
final class Merge
{
    public const NEW = ['version' => 0, 'derived' => [], 'consent' => [], 'reported_at' => 0];

    public const WORDPRESS = 'wordpress';

    public const MESH = 'mesh';

    /**
     * @param array<string, mixed>  $state
     * @param array<string, string> $profile The account's own, by field.
     * @param array<string, mixed>  $call    `version`, `derived`, `profile` and `consent` of a call.
     */
    public static function of(array $state, array $profile, array $call, int $now): Merged
    {
        $conflicts = [];
        $is_reported = false;
        if ($call['version'] >= $state['version']) {
            $state['version'] = $call['version'];
            $state['derived'] = $call['derived'];
            [$state, $is_reported, $conflicts] = self::profile($state, $profile, $call['profile'], $now);
        }
        // A choice of this site that the mesh does not have: its report was lost, or is on its way.
        $missing = array_filter(
            $state['consent'],
            static fn (array $own, string $purpose): bool => $own['is_own'] && ! isset($call['consent'][$purpose]),
            ARRAY_FILTER_USE_BOTH,
        );
        $choices = array_keys($missing);
        foreach ($call['consent'] as $purpose => $theirs) {
            $own = $state['consent'][$purpose] ?? null;
            $state['consent'][$purpose] = self::newest($own, $theirs);
            if ($own === null || $own['granted'] === $theirs['granted']) {
                if ($state['consent'][$purpose]['is_own']) {
                    $choices[] = $purpose;
                }
                continue;
            }
            $is_kept = $state['consent'][$purpose]['granted'] === $own['granted'];
            if ($is_kept && $own['is_own']) {
                $choices[] = $purpose;
            }
            // What one side has not seen of the other: a choice after the last one on which both agreed.
            if ($own['decided_at'] > $own['agreed_at'] && $theirs['decided_at'] > $own['agreed_at']) {
                $kept = $is_kept ? self::WORDPRESS : self::MESH;
                $conflicts[] = self::conflict($purpose, self::word($own), self::word($theirs), $kept, $theirs['decided_at']);
            }
        }
        return new Merged($state, $is_reported, $choices, $conflicts);
    }

    /**
     * A choice that is made on this site, which counts from now on.
     *
     * @param array<string, mixed> $state
     * @return array<string, mixed> The state; unchanged if the same choice is in force.
     */
    public static function choose(array $state, string $purpose, bool $granted, int $now): array
    {
        $own = $state['consent'][$purpose] ?? null;
        if ($own === null || $own['granted'] !== $granted) {
            // The person knew the choice that was in force.
            $before = $own['decided_at'] ?? 0;
            $seen = ['seen_at' => $own['seen_at'] ?? 0];
            $state['consent'][$purpose] = self::choice($granted, Moment::after($now, $before), $before, true) + $seen;
        }
        return $state;
    }

    /**
     * The profile is reported because it has changed.
     *
     * @param array<string, mixed> $state
     * @return array<string, mixed>
     */
    public static function report(array $state, int $now): array
    {
        return ['reported_at' => Moment::after($now, $state['reported_at'])] + $state;
    }

    /**
     * @param array{granted: bool, decided_at: int} $choice
     */
    public static function word(array $choice): string
    {
        return $choice['granted'] ? 'granted' : 'denied';
    }

    /**
     * @param array<string, mixed>                                   $state
     * @param array<string, string>                                  $profile
     * @param array<string, array{value: string, written_at: int}>   $theirs
     * @return array{array<string, mixed>, bool, list<array<string, mixed>>} The state, whether to report, and conflicts.
     */
    private static function profile(array $state, array $profile, array $theirs, int $now): array
    {
        // A field that the mesh lacks is an empty one that nobody ever wrote.
        $theirs = array_intersect_key($theirs, $profile)
            + array_map(static fn (): array => ['value' => '', 'written_at' => 0], $profile);
        $reported_at = $state['reported_at'];
        $is_answered = $reported_at > 0 && in_array($reported_at, array_column($theirs, 'written_at'), true);
        $differing = array_filter(
            $theirs,
            static fn (array $each, string $field): bool => ! self::is_same($field, $profile[$field], $each['value'])
                && ! self::is_refused($field, $profile[$field], $each, $is_answered ? $reported_at : 0),
            ARRAY_FILTER_USE_BOTH,
        );
        if ($differing === []) {
            return [$state, false, []];
        }
        $conflicts = [];
        foreach ($differing as $field => $each) {
            // An older value is what this site had reported before; another one wrote a newer value.
            if ($reported_at > 0 && $each['written_at'] > $reported_at) {
                $conflicts[] = self::conflict($field, $profile[$field], $each['value'], self::WORDPRESS, $each['written_at']);
            }
        }
        // The mesh keeps the later of two values. A report that has not been answered is repeated with its own time: the answer to
        // either is one to both.
        $written_at = max(array_column($differing, 'written_at'));
        if ($reported_at <= $written_at) {
            $reported_at = Moment::after($now, $written_at);
        }
        return [['reported_at' => $reported_at] + $state, true, $conflicts];
    }

    /**
     * Whether the mesh would not take the value of this site: to report it again would be answered by the same call, for ever.
     *
     * No report states that an account has no address. The mesh keeps none that another person has or had, nor what is of an erased
     * person.
     *
     * @param array{value: string, written_at: int} $theirs
     * @param int                                   $answered_at Time of the last report if the mesh has answered it, else 0.
     */
    private static function is_refused(string $field, string $own, array $theirs, int $answered_at): bool
    {
        if ($field === 'email' && ($own === '' || $theirs['written_at'] < $answered_at)) {
            return true;
        }
        return $answered_at > 0 && $theirs['written_at'] === $answered_at && $theirs['value'] === '';
    }

    private static function is_same(string $field, string $one, string $other): bool
    {
        return $one === $other || $field === 'email' && strtolower($one) === strtolower($other);
    }

    /**
     * @param array<string, mixed>|null             $own
     * @param array{granted: bool, decided_at: int} $theirs
     * @return array<string, mixed>
     */
    private static function newest(?array $own, array $theirs): array
    {
        ['granted' => $granted, 'decided_at' => $decided_at] = $theirs;
        $seen_at = $own['seen_at'] ?? 0;
        $seen = ['seen_at' => max($seen_at, $decided_at)];
        if ($own === null) {
            return self::choice($granted, $decided_at, $decided_at, false) + $seen;
        }
        if ($own['granted'] === $granted) {
            // Once the mesh has a choice of this site, the mesh's time of it counts: this site's clock may be ahead, and its choice
            // would stand against those made later. An older call may state an earlier choice that happens to be the same.
            if ($own['is_own'] && $decided_at <= $seen_at) {
                return $own;
            }
            $at = $own['is_own'] ? $decided_at : max($own['decided_at'], $decided_at);
            return self::choice($granted, $at, $at, false) + $seen;
        }
        $is_newer = $decided_at > $own['decided_at'] || ($decided_at === $own['decided_at'] && ! $granted);
        return $is_newer
            ? self::choice($granted, $decided_at, $decided_at, false) + $seen
            : $seen + ['agreed_at' => max($own['agreed_at'], $decided_at)] + $own;
    }

    /**
     * @return array{granted: bool, decided_at: int, agreed_at: int, is_own: bool}
     */
    private static function choice(bool $granted, int $decided_at, int $agreed_at, bool $is_own): array
    {
        return ['granted' => $granted, 'decided_at' => $decided_at, 'agreed_at' => $agreed_at, 'is_own' => $is_own];
    }

    /**
     * @return array{field: string, site_value: string, mesh_value: string, kept: string, at: int}
     */
    private static function conflict(string $field, string $site_value, string $mesh_value, string $kept, int $at): array
    {
        return ['field' => $field, 'site_value' => $site_value, 'mesh_value' => $mesh_value, 'kept' => $kept, 'at' => $at];
    }
}
