<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Payload\Clean;

/**
 * The visitor of the current request, as far as the browser says: cookies are claims, not facts.
 *
 * Once the visitor consents, the tracker sets `pmp_session` and `pmp_landing` (JSON: source, medium, campaign, term, content,
 * ref, referrer). A theme may also set `pmp_visitor`. Without cookies everything here is empty; this class sets none.
 */
final class Visitor
{
    private const ANALYTICS_SESSION = '/^GS\d+\.\d+\.s?(\d+)/';

    /**
     * @param array<string, mixed> $cookies
     * @param array<string, mixed> $server
     */
    public function __construct(private readonly array $cookies, private readonly array $server)
    {
    }

    public static function current(): self
    {
        return new self(wp_unslash($_COOKIE), wp_unslash($_SERVER));
    }

    public function session_id(): string
    {
        return Clean::id($this->cookies['pmp_session'] ?? '');
    }

    public function anonymous_id(): string
    {
        return Clean::id($this->cookies['pmp_visitor'] ?? '');
    }

    /**
     * Campaign of the landing.
     *
     * @return array<string, string>
     */
    public function utm(): array
    {
        return Clean::utm($this->landing());
    }

    public function address(): string
    {
        /**
         * The visitor's IP address. A site behind a proxy should return the one its proxy reports: clients can forge headers.
         *
         * @param string $address
         */
        return Clean::address(apply_filters('pmp_analytics_client_address', $this->server['REMOTE_ADDR'] ?? ''));
    }

    public function user_agent(): string
    {
        return Clean::text($this->server['HTTP_USER_AGENT'] ?? '', 1024);
    }

    /**
     * Global Privacy Control: the browser signals that its user's data must not be sold or shared. https://www.w3.org/TR/gpc/
     */
    public function refuses_sharing(): bool
    {
        return ($this->server['HTTP_SEC_GPC'] ?? '') === '1';
    }

    /**
     * The choice about sharing data with third parties: the cookie of a consent tool with the WP Consent API (category marketing).
     * Null without a choice; wp_has_consent() is none, since without a tool it says yes.
     */
    public function sharing(): ?bool
    {
        $choice = match ($this->cookie('wp_consent_marketing')) {
            'allow' => true,
            'deny' => false,
            default => null,
        };
        /**
         * Whether the visitor agrees to data being shared with third parties, such as Meta. Null for no choice.
         *
         * @param bool|null $choice
         */
        $choice = apply_filters('pmp_analytics_sharing', $choice);
        return is_bool($choice) ? $choice : null;
    }

    public function cookie(string $name): string
    {
        return Clean::text($this->cookies[$name] ?? '', 255);
    }

    /**
     * That the data of this report must not be shared, by the browser's signal or the visitor's choice; with or without consent.
     *
     * @return array<string, true>
     */
    public function refusal(): array
    {
        return $this->refuses_sharing() || $this->sharing() === false ? ['global_privacy_control' => true] : [];
    }

    /**
     * Ids that Google Analytics and Meta's pixel gave the browser: none without consent.
     *
     * @return array<string, string>
     */
    public function tags(): array
    {
        return ! Consent::is_given($this) ? [] : Clean::only_given([
            'ga_client_id' => $this->analytics_client(),
            'ga_session_id' => $this->analytics_session(),
            'fbp' => $this->cookie('_fbp'),
            'fbc' => $this->cookie('_fbc'),
        ]);
    }

    /**
     * The browser, with these ids: none without consent.
     *
     * @return array<string, string>
     */
    public function browser(): array
    {
        return ! Consent::is_given($this) ? [] : $this->tags() + Clean::only_given([
            'user_agent' => $this->user_agent(),
            'page_url' => $this->page_url(),
        ]);
    }

    /**
     * The browser and the session's referrer: stored with the order, because later changes of the order come from payment gateways
     * and staff.
     *
     * @return array<string, string>
     */
    public function marks(): array
    {
        $landing = $this->landing();
        return $this->browser() + Clean::only_given([
            'ref' => Clean::text($landing['ref'] ?? '', 100),
            'landing_referrer' => Clean::url($landing['referrer'] ?? '', 500),
        ]);
    }

    /**
     * The page of this request, or the one whose script sent it: the checkout, both when its form and when its block is submitted.
     * Only one of this site.
     */
    private function page_url(): string
    {
        $page = wp_validate_redirect(Clean::url($this->server['HTTP_REFERER'] ?? '', 1000));
        return str_starts_with($page, 'http') ? $page : '';
    }

    /**
     * The fields of an event that describe its session: none without consent.
     *
     * @return array<string, mixed>
     */
    public function facts(): array
    {
        return ! Consent::is_given($this) ? [] : [
            'session_id' => $this->session_id(),
            'utm_parameters' => $this->utm(),
            'user_agent' => $this->user_agent(),
            'ip_address' => $this->address(),
            'global_privacy_control' => $this->refuses_sharing(),
        ];
    }

    /**
     * Google Analytics' cookie is GA1.<depth>.<client id>, and a client id contains a dot.
     */
    private function analytics_client(): string
    {
        $parts = explode('.', Clean::text($this->cookies['_ga'] ?? '', 100));
        return count($parts) === 4 ? "{$parts[2]}.{$parts[3]}" : '';
    }

    /**
     * One cookie per property, _ga_<property>; the first one with a session id.
     */
    private function analytics_session(): string
    {
        foreach ($this->cookies as $name => $value) {
            if (str_starts_with((string) $name, '_ga_') && is_string($value) && preg_match(self::ANALYTICS_SESSION, $value, $found) === 1) {
                return $found[1];
            }
        }
        return '';
    }

    /**
     * @return array<mixed>
     */
    private function landing(): array
    {
        $cookie = $this->cookies['pmp_landing'] ?? '';
        $landing = is_string($cookie) && strlen($cookie) <= 4096 ? json_decode($cookie, true, 3) : null;
        return is_array($landing) ? $landing : [];
    }
}
