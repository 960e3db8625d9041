<?php

declare(strict_types=1);

namespace PMP\Analytics\Sync;

use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\RegistrationPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use WP_User;

/**
 * The profile of an account, by the names that its fields have in the mesh.
 */
final class Profile
{
    /** Where WordPress keeps what is not in the table of users. */
    public const META = ['first_name', 'last_name', 'locale'];

    private const LENGTH = 100;

    /**
     * @return array{email: string, first_name: string, last_name: string, language: string}
     */
    public static function of(WP_User $user): array
    {
        return [
            'email' => Clean::email($user->user_email),
            'first_name' => Clean::text($user->first_name, self::LENGTH),
            'last_name' => Clean::text($user->last_name, self::LENGTH),
            'language' => get_user_locale($user),
        ];
    }

    /**
     * The account, for a mesh that may not know it.
     *
     * @param int $at Microseconds since 1970.
     */
    public static function registration(WP_User $user, int $at): Message
    {
        ['language' => $language] = $facts = self::of($user);
        $registered = strtotime("{$user->user_registered} UTC");
        $facts += [
            'wordpress_id' => $user->ID,
            'registration_date' => $registered === false || $registered < 0 ? null : $registered,
            'preferences' => ['language' => $language],
            'timestamp' => Moment::text($at),
        ];
        return new Message(Kind::Registration, "wp-user-{$user->ID}-" . Uuid::make($at / 1_000_000), RegistrationPayload::of($facts));
    }

    /**
     * @param int $at Microseconds since 1970.
     */
    public static function report(WP_User $user, int $at): Message
    {
        ['language' => $language] = $facts = self::of($user);
        $facts = ['preferences' => ['language' => $language], 'updated_at' => Moment::text($at)] + $facts;
        // An empty name was removed; without it, the mesh would keep the one before.
        $payload = RegistrationPayload::profile($facts) + ['first_name' => '', 'last_name' => ''];
        return new Message(Kind::Profile, "wp-user-{$user->ID}-" . Uuid::make($at / 1_000_000), $payload, (string) $user->ID);
    }
}
