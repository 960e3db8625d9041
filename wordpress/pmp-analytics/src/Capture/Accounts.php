<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Payload\RegistrationPayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP\Analytics\Sync\SyncedUsers;
use PMP_Config;
use PMP_Event_Queue;
use WP_User;

/**
 * Registrations and logins. Staff users are excluded.
 */
final class Accounts implements Registerable
{
    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly Clock $clock,
        private readonly SyncedUsers $users,
    ) {
    }

    public function register(): void
    {
        // WooCommerce fires woocommerce_created_customer later for the same user.
        Hook::action('user_register', [$this, 'registered'], 20);
        Hook::action('wp_login', [$this, 'logged_in'], 20, 2);
    }

    public function registered(mixed $user_id): void
    {
        $user_id = Clean::number($user_id);
        $user = get_userdata($user_id);
        if (! $user instanceof WP_User || $this->config->is_staff($user_id)) {
            return;
        }
        $visitor = $this->visitor_of($user_id);
        $this->queue->add(
            new Message(Kind::Registration, "wp-user-{$user_id}-registered", $this->registration($user, $visitor)),
            $this->conversion($user, $visitor),
        );
        $this->users->reported($user, $this->clock->now());
    }

    /**
     * @param mixed $user The user; plugins with their own login often omit it.
     */
    public function logged_in(mixed $login, mixed $user = null): void
    {
        $user = $user instanceof WP_User ? $user : get_user_by('login', Clean::text($login, 60));
        if (! $user instanceof WP_User || $this->config->is_staff($user->ID)) {
            return;
        }
        $now = $this->clock->now();
        $event = Uuid::make($now);
        $facts = ['id' => $event, 'timestamp' => $now, 'user_id' => $user->ID, 'source' => 'plugin'];
        $this->queue->add(
            // The account may be older than this plugin: the mesh has to know the user before the login.
            new Message(Kind::Registration, "wp-user-{$user->ID}-seen-{$event}", $this->registration($user, Visitor::current())),
            $this->profile($user->ID, ['last_login' => $now]),
            new Message(Kind::Event, $event, EventPayload::of('login', $facts + Visitor::current()->facts())),
        );
        $this->users->reported($user, $now);
    }

    /**
     * The visitor is the user, unless another person, such as the shop's staff, creates the account.
     */
    private function visitor_of(int $user_id): Visitor
    {
        return in_array(get_current_user_id(), [0, $user_id], true) ? Visitor::current() : new Visitor([], []);
    }

    /**
     * @return array<string, mixed>
     */
    private function registration(WP_User $user, Visitor $visitor): array
    {
        return RegistrationPayload::of([
            'wordpress_id' => $user->ID,
            'email' => $user->user_email,
            'first_name' => $user->first_name,
            'last_name' => $user->last_name,
            'registration_date' => self::date($user->user_registered),
            'session_id' => $visitor->session_id(),
            'anonymous_id' => $visitor->anonymous_id(),
            'utm_parameters' => $visitor->utm(),
            'preferences' => ['language' => get_user_locale($user)],
            'timestamp' => $this->clock->now(),
        ]);
    }

    /**
     * @return int|null Seconds since 1970; null for an unknown date, which MySQL stores as 0000-00-00.
     */
    private static function date(string $date): ?int
    {
        $seconds = strtotime("{$date} UTC");
        return $seconds === false || $seconds < 0 ? null : $seconds;
    }

    private function conversion(WP_User $user, Visitor $visitor): Message
    {
        $id = "wp-user-{$user->ID}-signup";
        return new Message(Kind::Conversion, $id, JourneyPayload::conversion('signup', [
            'id' => $id,
            'timestamp' => $this->clock->now(),
            'user_id' => $user->ID,
            'session_id' => $visitor->session_id(),
            'utm_parameters' => $visitor->utm(),
            'metadata' => $visitor->browser() + $visitor->refusal(),
        ]));
    }

    /**
     * @param array<string, mixed> $facts
     */
    private function profile(int $user_id, array $facts): Message
    {
        $now = $this->clock->now();
        $payload = RegistrationPayload::profile($facts + ['updated_at' => $now]);
        return new Message(Kind::Profile, "wp-user-{$user_id}-" . Uuid::make($now), $payload, Clean::id((string) $user_id));
    }
}
