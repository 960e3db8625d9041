<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Identifier;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Payload\RegistrationPayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;
use WP_User;

/**
 * People who register, log in or change their e-mail address. Staff is nobody's customer and is left out.
 */
final class Accounts implements Registerable
{
    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        // WooCommerce's woocommerce_created_customer follows it for the same person.
        Hook::action('user_register', [$this, 'registered'], 20);
        Hook::action('wp_login', [$this, 'logged_in'], 20, 2);
        Hook::action('profile_update', [$this, 'changed'], 20, 2);
    }

    public function registered(mixed $user_id): void
    {
        $user_id = Clean::number($user_id);
        $user = get_userdata($user_id);
        if (! $user instanceof WP_User || $this->config->is_staff($user_id)) {
            return;
        }
        $visit = $this->visit_of($user_id);
        $this->queue->add(
            new Message(Kind::Registration, "wp-user-{$user_id}-registered", $this->registration($user, $visit)),
            $this->conversion($user, $visit),
        );
    }

    /**
     * @param mixed $user The person; plugins that log people in by themselves often leave it out.
     */
    public function logged_in(mixed $login, mixed $user = null): void
    {
        $user = $user instanceof WP_User ? $user : get_user_by('login', Clean::text($login, 60));
        if (! $user instanceof WP_User || $this->config->is_staff($user->ID)) {
            return;
        }
        $now = $this->clock->now();
        $event = Identifier::make($now);
        $facts = ['id' => $event, 'timestamp' => $now, 'user_id' => $user->ID, 'source' => 'plugin'];
        $this->queue->add(
            // A person may be older than this plugin: the mesh has to know somebody before it hears of a login.
            new Message(Kind::Registration, "wp-user-{$user->ID}-seen-{$event}", $this->registration($user, Visit::current())),
            $this->profile($user->ID, ['last_login' => $now]),
            new Message(Kind::Event, $event, EventPayload::of('login', $facts + Visit::current()->facts())),
        );
    }

    public function changed(mixed $user_id, mixed $before = null): void
    {
        $user_id = Clean::number($user_id);
        $user = get_userdata($user_id);
        if (! $user instanceof WP_User || ! $before instanceof WP_User || $this->config->is_staff($user_id)) {
            return;
        }
        if ($user->user_email === $before->user_email) {
            return;
        }
        $this->queue->add($this->profile($user_id, [
            'email' => $user->user_email,
            'first_name' => $user->first_name,
            'last_name' => $user->last_name,
        ]));
    }

    /**
     * The visit belongs to the person, unless somebody else, such as the shop's staff, registers them.
     */
    private function visit_of(int $user_id): Visit
    {
        return in_array(get_current_user_id(), [0, $user_id], true) ? Visit::current() : new Visit([], []);
    }

    /**
     * @return array<string, mixed>
     */
    private function registration(WP_User $user, Visit $visit): array
    {
        return RegistrationPayload::of([
            'wordpress_id' => $user->ID,
            'email' => $user->user_email,
            'first_name' => $user->first_name,
            'last_name' => $user->last_name,
            'registration_date' => self::date($user->user_registered),
            'session_id' => $visit->session_id(),
            'anonymous_id' => $visit->anonymous_id(),
            'utm_parameters' => $visit->utm(),
            'preferences' => ['language' => get_user_locale($user)],
            'timestamp' => $this->clock->now(),
        ]);
    }

    /**
     * @return int|null Seconds since 1970; null for a date that nobody knew, which MySQL keeps as 0000-00-00.
     */
    private static function date(string $date): ?int
    {
        $seconds = strtotime("{$date} UTC");
        return $seconds === false || $seconds < 0 ? null : $seconds;
    }

    private function conversion(WP_User $user, Visit $visit): Message
    {
        $id = "wp-user-{$user->ID}-signup";
        return new Message(Kind::Conversion, $id, JourneyPayload::conversion('signup', [
            'id' => $id,
            'timestamp' => $this->clock->now(),
            'user_id' => $user->ID,
            'session_id' => $visit->session_id(),
            'utm_parameters' => $visit->utm(),
        ]));
    }

    /**
     * @param array<string, mixed> $facts
     */
    private function profile(int $user_id, array $facts): Message
    {
        $now = $this->clock->now();
        $payload = RegistrationPayload::profile($facts + ['updated_at' => $now]);
        return new Message(Kind::Profile, "wp-user-{$user_id}-" . Identifier::make($now), $payload, Clean::name((string) $user_id));
    }
}
