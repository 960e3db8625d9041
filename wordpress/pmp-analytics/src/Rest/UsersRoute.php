<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Api\Webhook;
use PMP\Analytics\Clock;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Sync\SyncedUsers;
use PMP_Config;
use WP_REST_Request;
use WP_REST_Response;
use WP_User;

/**
 * POST pmp/v1/users: the mesh states what it knows of an account (`user.changed`), that a person was erased (`user.erased`), or
 * finds out whether it is heard (`site.test`).
 */
final class UsersRoute extends SignedRoute
{
    public const PATH = '/users';

    private const MAX_TEXT = 255;

    public function __construct(PMP_Config $config, private readonly SyncedUsers $users, Clock $clock)
    {
        parent::__construct($config, $clock);
    }

    public function answer(WP_REST_Request $request): WP_REST_Response
    {
        $call = Webhook::of($request)->content();
        return match ($call['type'] ?? '') {
            'user.changed' => $this->change($call['data']),
            'user.erased' => $this->erase($call['data']),
            'site.test' => new WP_REST_Response(['success' => true]),
            default => $this->unknown(),
        };
    }

    /**
     * @param array<mixed> $data
     */
    private function change(array $data): WP_REST_Response
    {
        $call = self::read($data);
        $user_id = Clean::number($data['wordpress_id'] ?? 0);
        if ($call === null || $user_id === 0) {
            return $this->unknown();
        }
        $user = get_userdata($user_id);
        if (! $user instanceof WP_User || $this->config->is_staff($user_id)) {
            return Refusal::of(410, 5, 'There is no such customer.');
        }
        $this->users->apply($user, $call);
        return new WP_REST_Response(['success' => true]);
    }

    /**
     * @param array<mixed> $data
     */
    private function erase(array $data): WP_REST_Response
    {
        array_map($this->users->forget(...), array_filter(array_map(Clean::number(...), (array) ($data['wordpress_ids'] ?? []))));
        return new WP_REST_Response(['success' => true]);
    }

    private function unknown(): WP_REST_Response
    {
        return Refusal::of(400, 3, 'The body is {"type": "user.changed", "data": {"wordpress_id": ..., "version": ..., ...}}, '
            . '{"type": "user.erased", "data": {"wordpress_ids": [...]}} or {"type": "site.test", "data": {}}.');
    }

    /**
     * What a call states, without what this version does not know; null if it is none.
     *
     * @param array<mixed> $data
     * @return array<string, mixed>|null
     */
    private static function read(array $data): ?array
    {
        $parts = array_map(static fn (string $part): mixed => $data[$part] ?? null, ['derived', 'profile', 'consent']);
        if (! is_int($data['version'] ?? null) || array_filter($parts, is_array(...)) !== $parts) {
            return null;
        }
        [$derived, $profile, $consent] = $parts;
        $choices = array_intersect_key($consent, array_flip(ConsentPayload::PURPOSES));
        return [
            'version' => $data['version'],
            'derived' => array_map(
                static fn (string $value): string => Clean::text($value, self::MAX_TEXT),
                array_filter(
                    $derived,
                    static fn (mixed $value, int|string $field): bool => is_string($value) && self::is_field($field),
                    ARRAY_FILTER_USE_BOTH,
                ),
            ),
            'profile' => array_filter(
                $profile,
                static fn (mixed $each): bool => is_string($each['value'] ?? null) && is_int($each['written_at'] ?? null),
            ),
            'consent' => array_filter(
                $choices,
                static fn (mixed $each): bool => is_bool($each['granted'] ?? null) && is_int($each['decided_at'] ?? null),
            ),
        ];
    }

    private static function is_field(int|string $name): bool
    {
        return preg_match('/^[a-z_]{1,50}$/D', (string) $name) === 1;
    }
}
