<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Registerable;
use PMP_Config;
use WP_User;

/**
 * Changes of accounts by this site and other plugins. A derived value of the mesh is not changed, a choice becomes the person's
 * newest one, and a changed profile is reported at the end of the request.
 */
final class UserMeta implements Registerable
{
    /** @var array<int, true> Accounts whose profile may have changed in this request. */
    private array $touched = [];

    public function __construct(private readonly SyncedUsers $users, private readonly PMP_Config $config)
    {
    }

    public function register(): void
    {
        Hook::filter('update_user_metadata', [$this, 'writing'], 20, 4);
        Hook::filter('add_user_metadata', [$this, 'writing'], 20, 4);
        Hook::filter('delete_user_metadata', [$this, 'deleting'], 20, 3);
        foreach (['added', 'updated', 'deleted'] as $what) {
            Hook::action("{$what}_user_meta", [$this, 'written'], 20, 3);
        }
        Hook::action('profile_update', [$this, 'changed'], 20);
        // As orders are: before the outbox is delivered.
        Hook::action('shutdown', [$this, 'report_touched'], 0);
    }

    /**
     * @param mixed $done Null as long as the value is to be written.
     * @return mixed False for a value that is refused, true for one that was written.
     */
    public function writing(mixed $done, mixed $user_id = 0, mixed $key = '', mixed $value = ''): mixed
    {
        $user_id = Clean::number($user_id);
        $field = $this->field($key);
        if ($done !== null || $field === '' || $user_id === 0 || $this->config->is_staff($user_id)) {
            return $done;
        }
        if (in_array($field, ConsentPayload::PURPOSES, true)) {
            if (! in_array($value, ['granted', 'denied'], true)) {
                return false;
            }
            $this->users->choose($user_id, $field, $value === 'granted');
            return true;
        }
        $kept = SyncedUsers::values_of($user_id)[$field] ?? null;
        $text = Clean::text($value, 255);
        if ($kept === null || $kept === $text) {
            return null;
        }
        $this->users->refuse($user_id, $field, $text);
        return false;
    }

    /**
     * @param mixed $done Null as long as the value is to be deleted.
     * @return mixed False for a deletion that is refused.
     */
    public function deleting(mixed $done, mixed $user_id = 0, mixed $key = ''): mixed
    {
        $user_id = Clean::number($user_id);
        $field = $this->field($key);
        if ($done !== null || $field === '' || $user_id === 0 || ! isset(SyncedUsers::values_of($user_id)[$field])) {
            return $done;
        }
        if (! in_array($field, ConsentPayload::PURPOSES, true)) {
            $this->users->refuse($user_id, $field, '');
        }
        return false;
    }

    public function changed(mixed $user_id): void
    {
        $user_id = Clean::number($user_id);
        $user = get_userdata($user_id);
        if ($user instanceof WP_User && ! $this->config->is_staff($user_id)) {
            $this->users->report($user);
        }
    }

    public function written(mixed $row, mixed $user_id = 0, mixed $key = ''): void
    {
        if ($row !== null && in_array($key, Profile::META, true)) {
            $this->touched[Clean::number($user_id)] = true;
        }
    }

    public function report_touched(): void
    {
        array_map($this->changed(...), array_keys($this->touched));
        $this->touched = [];
    }

    /**
     * The field of a key that others write; empty if it is none of ours.
     */
    private function field(mixed $key): string
    {
        $is_ours = is_string($key) && str_starts_with($key, SyncedUsers::PREFIX) && ! $this->users->is_writing();
        return $is_ours ? substr($key, strlen(SyncedUsers::PREFIX)) : '';
    }
}
