<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

use Closure;
use PMP\Analytics\Clock;
use PMP\Analytics\Payload\ConflictPayload;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP_Event_Queue;
use RuntimeException;
use WP_User;

/**
 * What the mesh and this site both know of an account, in its user meta: each derived value and each choice under a key of its own,
 * for themes and other plugins to read, and what Merge decides by.
 */
final class SyncedUsers
{
    public const PREFIX = 'pmp_';

    private const STATE = 'pmp_synced';

    private const ATTEMPTS = 5;

    private bool $is_writing = false;

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly Clock $clock)
    {
    }

    /**
     * Applies a call of the mesh about an account.
     *
     * @param array<string, mixed> $call `version`, `derived`, `profile` and `consent`.
     */
    public function apply(WP_User $user, array $call): void
    {
        $now = Moment::of($this->clock->now());
        $this->change($user->ID, function (array $state) use ($user, $call, $now): array {
            $merged = Merge::of($state, Profile::of($user), $call, $now);
            // Before the state: if this ends in between, the call comes again.
            $this->queue->add(
                ...($merged->is_reported ? [Profile::report($user, $merged->state['reported_at'])] : []),
                ...array_map(fn (string $each): Message => $this->choice($user->ID, $each, $merged->state), $merged->choices),
                ...array_map(fn (array $each): Message => $this->conflict($user->ID, $each), $merged->conflicts),
            );
            return ($merged->is_reported ? ['reported' => self::digest($user)] : []) + $merged->state;
        });
    }

    /**
     * A choice that was made on this site.
     */
    public function choose(int $user_id, string $purpose, bool $granted): void
    {
        $now = Moment::of($this->clock->now());
        $this->change($user_id, function (array $state) use ($user_id, $purpose, $granted, $now): array {
            $chosen = Merge::choose($state, $purpose, $granted, $now);
            if ($chosen !== $state) {
                $this->queue->add($this->choice($user_id, $purpose, $chosen));
            }
            return $chosen;
        });
    }

    /**
     * Another plugin tried to change a derived value. Repeating it is no further conflict.
     */
    public function refuse(int $user_id, string $field, string $value): void
    {
        $now = Moment::of($this->clock->now());
        $this->change($user_id, function (array $state) use ($user_id, $field, $value, $now): array {
            $digest = hash('sha256', $value);
            if (($state['refused'][$field] ?? '') !== $digest) {
                $state['refused'][$field] = $digest;
                $mesh_value = $state['derived'][$field] ?? '';
                $values = ['site_value' => $value, 'mesh_value' => $mesh_value, 'kept' => Merge::MESH, 'at' => $now];
                $this->queue->add($this->conflict($user_id, ['field' => $field] + $values));
            }
            return $state;
        });
    }

    /**
     * Reports the profile of an account if it is another one than was reported last.
     */
    public function report(WP_User $user): void
    {
        $now = Moment::of($this->clock->now());
        $this->change($user->ID, function (array $state) use ($user, $now): array {
            if (($state['reported'] ?? '') === self::digest($user)) {
                return $state;
            }
            $reported = Merge::report($state, $now);
            $this->queue->add(
                // An account that was never reported may be older than this plugin: the mesh has to know it before its profile.
                ...($state['reported_at'] === 0 ? [Profile::registration($user, $reported['reported_at'])] : []),
                ...[Profile::report($user, $reported['reported_at'])],
            );
            return ['reported' => self::digest($user)] + $reported;
        });
    }

    /**
     * The profile of an account was reported with a registration, as of this time in seconds since 1970.
     */
    public function reported(WP_User $user, float $at): void
    {
        $this->change($user->ID, static fn (array $state): array => [
            'reported_at' => max($state['reported_at'], Moment::of($at)),
            'reported' => self::digest($user),
        ] + $state);
    }

    /**
     * Whether this class is writing user meta at this moment.
     */
    public function is_writing(): bool
    {
        return $this->is_writing;
    }

    /**
     * What the mesh knows of an account, by the field's name.
     *
     * @return array<string, string>
     */
    public static function values_of(int $user_id): array
    {
        $state = self::read((string) get_user_meta($user_id, self::STATE, true));
        return $state['derived'] + array_map(Merge::word(...), $state['consent']);
    }

    /**
     * Erases all of it.
     *
     * @return bool True if there was any.
     */
    public function forget(int $user_id): bool
    {
        $fields = array_keys(self::values_of($user_id));
        $this->is_writing = true;
        try {
            array_map(static fn (string $field): bool => delete_user_meta($user_id, self::PREFIX . $field), $fields);
            return delete_user_meta($user_id, self::STATE);
        } finally {
            $this->is_writing = false;
        }
    }

    /**
     * Changes the state of an account, and writes the values that follow from it. Of two requests at once, one starts again.
     *
     * @param Closure(array<string, mixed>): array<string, mixed> $work
     * @throws RuntimeException When others keep changing it, or the database fails.
     */
    private function change(int $user_id, Closure $work): void
    {
        for ($attempt = 0; $attempt < self::ATTEMPTS; ++$attempt) {
            $text = self::stored($user_id);
            $state = self::read($text);
            $changed = $work($state);
            if ($changed !== $state && ! $this->store($user_id, $text, (string) wp_json_encode($changed))) {
                continue;
            }
            do {
                $written = self::stored($user_id);
                $this->write($user_id, self::read($written));
            } while ($written !== self::stored($user_id));
            return;
        }
        throw new RuntimeException('The state of an account can not be stored.');
    }

    private function store(int $user_id, string $before, string $text): bool
    {
        return $before === ''
            ? add_user_meta($user_id, self::STATE, wp_slash($text), true) !== false
            : update_user_meta($user_id, self::STATE, wp_slash($text), $before) !== false;
    }

    /**
     * @param array<string, mixed> $state
     */
    private function write(int $user_id, array $state): void
    {
        $this->is_writing = true;
        try {
            foreach ($state['derived'] + array_map(Merge::word(...), $state['consent']) as $field => $value) {
                update_user_meta($user_id, self::PREFIX . $field, wp_slash($value));
            }
        } finally {
            $this->is_writing = false;
        }
    }

    /**
     * @param array<string, mixed> $state
     */
    private function choice(int $user_id, string $purpose, array $state): Message
    {
        $choice = $state['consent'][$purpose];
        $payload = ConsentPayload::of([
            $purpose => $choice['granted'],
            'source' => 'api',
            'timestamp' => Moment::text($choice['decided_at']),
        ]);
        return new Message(Kind::Consent, Uuid::make($this->clock->now()), $payload, (string) $user_id);
    }

    /**
     * @param array{field: string, site_value: string, mesh_value: string, kept: string, at: int} $conflict
     */
    private function conflict(int $user_id, array $conflict): Message
    {
        // The same when a call is repeated.
        $id = 'wp-conflict-' . hash('sha256', "{$user_id} " . wp_json_encode($conflict));
        $payload = ConflictPayload::of(['id' => $id, 'decided_at' => $this->clock->now()] + $conflict);
        return new Message(Kind::Conflict, $id, $payload, (string) $user_id);
    }

    private static function digest(WP_User $user): string
    {
        return hash('sha256', (string) wp_json_encode(Profile::of($user)));
    }

    /**
     * The state as it is stored now, whatever another request has changed.
     */
    private static function stored(int $user_id): string
    {
        wp_cache_delete($user_id, 'user_meta');
        return (string) get_user_meta($user_id, self::STATE, true);
    }

    /**
     * @return array<string, mixed>
     */
    private static function read(string $text): array
    {
        return (array) json_decode($text, true) + Merge::NEW;
    }
}
